"""The languages whose words and sentences are known here, and the character classes their rules share."""

from __future__ import annotations

import difflib

from rlsft.errors import ConfigError

LANGUAGES = ("en", "ja", "zh")

# Written without spaces between words: tokens are characters, and sentence marks need no space after them.
CHARACTER_LANGUAGES = frozenset({"ja", "zh"})

# Han, kana and their marks (U+3005 repeats a character, U+30FC lengthens a vowel); no punctuation.
CJK = (
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff"
)

EMOJI = "\u2600-\u27bf\U0001f000-\U0001faff"

# Two or three characters such as :) ;-) =D or <3, set off by spaces: one token, and an end of a message.
EMOTICON = r"(?:[:;=8][-o*']?[()\[\]DdPp/\\|*3]+|<3+|\^_?\^|T_T)"


def check_language(language: str) -> str:
    """Return `language`, or raise `ConfigError` with the nearest name when it is not one of `LANGUAGES`."""
    if language in LANGUAGES:
        return language
    near = difflib.get_close_matches(str(language).lower(), LANGUAGES, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"language must be one of {', '.join(LANGUAGES)}, got {language!r}{hint}")
