"""PURE: where a redirect points, as it may be shown. None is followed.

The venue sends none (fact sheet sections 1 and 6): what does is a captive portal or a proxy, whose
addresses are none of ours.
"""

import re

REDIRECTS = frozenset({301, 302, 303, 307, 308})
SHOWN_MAX = 200

_LOGIN = re.compile("//[^/]*@")


def redirect_told(location: str) -> str:
    """Return what to say of a redirect: its address without login, query and fragment.

    It need not be an address at all, nor text: whoever sends it may send anything.
    """
    address = _LOGIN.sub("//", re.split("[?#]", location, maxsplit=1)[0])
    return f"a redirect to {address[:SHOWN_MAX]!a}, which is not followed"
