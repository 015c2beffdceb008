"""Where the review page is found, and who may open it."""

import ipaddress

TOKEN_ENV = "WOMBAT_REVIEW_TOKEN"
"""Set by ``wombat up``, which prints the page's address itself."""
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # and where this machine reaches itself


def is_loopback(host: str) -> bool:
    """Tell whether a server bound to `host` is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def reachable(host: str) -> str:
    """Return the address under which this machine reaches a server that listens on `host`."""
    return EVERY_ADDRESS.get(host, host)


def page_address(host: str, port: int, token: str | None) -> str:
    """Return where the page is found, with what lets one in."""
    name = reachable(host)
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")
