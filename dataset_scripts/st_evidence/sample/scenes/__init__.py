"""All scenes of the sample."""

from scenes import cups, gallery, harbour, house, orchard, reef, room, sky, street
from scenes.base import FPS, Ask, Scene, Thing

__all__ = ["ALL", "FPS", "Ask", "Scene", "Thing"]

ALL: tuple[Scene, ...] = tuple(
    scene for module in (street, reef, orchard, harbour, room, cups, house, gallery, sky) for scene in module.SCENES
)
