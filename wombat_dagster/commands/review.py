"""``wombat review``: the web page where a person looks at light curves and decides."""

import os
import sys
from typing import TYPE_CHECKING

import click

from wombat_dagster.terminal import Refused, open_in_force

if TYPE_CHECKING:
    from wombat_dagster.observatory import Observatory


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Default: the one of [review] in wombat.toml."
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="0.0.0.0: the whole network; the address printed then holds a password.",
)
@click.option(
    "--open/--no-open",
    "to_open",
    default=None,
    help="Open it in the browser; default: when at a terminal.",
)
def review(port: int | None, host: str, to_open: bool | None) -> None:
    """Serve the page where light curves are looked at and decided on, until Ctrl-C."""
    import secrets
    import threading
    import webbrowser

    import uvicorn

    from wombat_dagster.observatory import open_observatory
    from wombat_dagster.processes import is_taken
    from wombat_dagster.review.address import TOKEN_ENV, is_loopback, page_address
    from wombat_dagster.review.server import make_app

    observatory = open_in_force()
    _make_database(observatory)
    port = port or observatory.settings.review.port
    if is_taken(host, port):
        raise Refused(f"port {port} of {host} is taken: is another wombat review there? --port")
    token = os.environ.get(TOKEN_ENV)
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    address = page_address(host, port, token)
    app = make_app(open_observatory, token=token, port=port)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level="warning",
            lifespan="off",
            ws="none",
            server_header=False,
        )
    )
    click.echo(f"Review: {address}   (Ctrl-C stops it)")
    if token is not None and not is_loopback(host):
        click.echo("Whoever has this address may decide. Nothing is encrypted on the way.")
    if sys.stdout.isatty() if to_open is None else to_open:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    server.run()


def _make_database(observatory: "Observatory") -> None:
    """Make or migrate the database now: a first request is no place for it."""
    assert observatory.status.path.exists()
