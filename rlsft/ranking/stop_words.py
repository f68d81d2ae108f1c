"""English words that say little on their own: no candidates for keywords, and no overlap between sentences."""

from __future__ import annotations

_WORDS = """
a about above after again against all also am an and any are as at be because been before being below between both but
by can cannot could did do does doing done down during each either else ever every few for from further had has have
having he her here hers herself him himself his how however i if in into is it its itself just least less let like
many may me might mine more most much must my myself neither never no nor not now of off often on once one only onto or
other others ought our ours ourselves out over own per perhaps rather same shall she should since so some such than
that the their theirs them themselves then there therefore these they this those though through thus till to too
toward under until up upon us very via was we well were what whatever when where whereas whether which while who
whom whose why will with within without would yes yet you your yours yourself yourselves
don't doesn't didn't isn't aren't wasn't weren't won't wouldn't can't couldn't shouldn't haven't hasn't hadn't it's
i'm i've i'd i'll you're you've you'd you'll he's she's we're we've we'll they're they've they'll that's there's let's
"""
STOP_WORDS: dict[str, frozenset[str]] = {"en": frozenset(_WORDS.split()), "ja": frozenset(), "zh": frozenset()}
