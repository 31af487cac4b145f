"""Models that come with evqa, as transformers models. Importing this imports none of them.

After ``import evqa`` the auto classes of transformers know them by their ``model_type``; see :mod:`evqa._hooks`.
"""
