"""What adapters of models behind a network share: pace, price, pauses that servers ask for, images as JPEG, no keys."""

from __future__ import annotations

import base64
import email.utils
import io
import math
import os
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evqa.errors import AdapterError, SetupError

__all__ = ["Budget", "Prices", "data_url", "jpeg", "redacted", "retry_after", "shortened", "without_secrets"]


class Budget:
    """Keeps requests and tokens per minute below a limit, over all threads of this process.

    Args:
        requests_per_minute, tokens_per_minute: Limits; ``None`` for none. Tokens are booked as a guess before a request
            and corrected by :meth:`settle`.
        clock, sleep: For tests.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._limits = {"requests": requests_per_minute, "tokens": tokens_per_minute}
        self._level = {name: float(limit or 0) for name, limit in self._limits.items()}
        self._clock, self._sleep = clock, sleep
        self._then = clock()
        self._lock = threading.Lock()

    def take(self, tokens: int) -> None:
        """Wait until one request of about so many tokens is within the limits, and book it."""
        while True:
            with self._lock:
                self._refill()
                # A request larger than a minute's whole allowance goes out when the bucket is full.
                wanted = {"requests": 1.0, "tokens": min(float(tokens), self._limits["tokens"] or 0.0)}
                pause = max(
                    (60 * (wanted[name] - self._level[name]) / limit for name, limit in self._limits.items() if limit),
                    default=0.0,
                )
                if pause <= 0:
                    self._level["requests"] -= 1
                    self._level["tokens"] -= tokens
                    return
            self._sleep(pause)

    def settle(self, guessed: int, used: int) -> None:
        """Correct the booking of a request by what it really used."""
        with self._lock:
            self._level["tokens"] += guessed - used

    def _refill(self) -> None:
        now = self._clock()
        for name, limit in self._limits.items():
            if limit:
                self._level[name] = min(limit, self._level[name] + (now - self._then) * limit / 60)
        self._then = now


class Prices:
    """Prices per million tokens, from a YAML file ``{model: {input: 2.5, output: 10.0}}``.

    Prices change and differ by contract, so evqa brings none: a cap on spend needs a file of yours.
    """

    def __init__(self, path: str | os.PathLike | None):
        self._table: dict[str, dict[str, float]] = {}
        if path is None:
            return
        import yaml

        try:
            table = yaml.safe_load(Path(path).read_text("utf-8"))
            self._table = {str(m): {k: float(v) for k, v in prices.items()} for m, prices in table.items()}
            for model, prices in self._table.items():
                if set(prices) != {"input", "output"} or not all(0 <= price < math.inf for price in prices.values()):
                    raise ValueError(f"{model}: a price per million tokens each for input and output")
        except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
            raise AdapterError(f"the price table cannot be read ({error})", file=path) from None

    def cost(self, model: str, usage: Mapping[str, Any]) -> float | None:
        """What some tokens cost; ``None`` if the table does not know the model."""
        prices = self._table.get(model)
        if prices is None:
            return None
        return sum(prices.get(side, 0.0) * (usage.get(f"{side}_tokens") or 0) for side in ("input", "output")) / 1e6

    def add_cost(self, model: str, usage: dict[str, Any]) -> None:
        """Put ``cost`` into the usage of a reply.

        Raises:
            SetupError: The model has a price, but the server does not tell how many tokens it used: a cap on spend
                could not be kept.
        """
        if not self.knows(model):
            return
        if not usage.get("input_tokens"):
            raise SetupError(f"the server does not tell how many tokens {model!r} used: the run cannot be priced")
        usage["cost"] = self.cost(model, usage)

    def knows(self, model: str) -> bool:
        """Whether the model has a price."""
        return model in self._table


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The pause that a server asks for, in seconds: ``Retry-After`` as seconds or as a date, or ``retry-after-ms``."""
    lowered = {key.lower(): value for key, value in headers.items()}
    try:
        if "retry-after-ms" in lowered:
            return max(0.0, float(lowered["retry-after-ms"]) / 1000)
        value = lowered.get("retry-after")
        if value is None:
            return None
        if re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
            return float(value)
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def jpeg(image: np.ndarray | Image.Image, quality: int = 90) -> bytes:
    """An image as JPEG bytes; arrays are uint8 ``[h, w, 3]`` RGB."""
    out = io.BytesIO()
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    picture.convert("RGB").save(out, "JPEG", quality=quality)
    return out.getvalue()


def data_url(data: bytes) -> str:
    """JPEG bytes as a data URL."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


_KEYS = re.compile(r"\b(?:sk|key|AIza|ya29)[-_.A-Za-z0-9*]{6,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)|(?<=Bearer )\S+")


def redacted(text: str, *secrets: str | None) -> str:
    """A text without keys: those given, and whatever looks like one (servers like to repeat keys in errors)."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return _KEYS.sub("***", text)


def without_secrets(url: str) -> str:
    """A server's address without user, password and query, for a manifest."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def shortened(value: Any) -> Any:
    """A request as it can be shown: long base64 data become their length."""
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shortened(item) for item in value]
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, str) and value.startswith("data:") and len(value) > 200:
        return f"{value[: value.index(',') + 1]}<{len(value)} characters>"
    return value
