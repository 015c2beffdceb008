"""``wombat retry``: exactly those again that ended with one word."""

import sys

import click

from wombat_dagster import progress
from wombat_dagster.terminal import Refused, console, count, open_in_force


@click.command()
@click.option("--reason", "word", required=True, metavar="WORD", help="novsp, nocomps, nowcs, …")
def retry(word: str) -> None:
    """Run exactly the observations again whose proc or apphot is WORD.

    What was reduced and solved stays where they ended after that. For novsp and vsxdown the service
    is asked first; while it does not answer, they stay parked.
    """
    observatory = open_in_force()
    from wombat_dagster import runs
    from wombat_dagster.domain import Apphot, Proc

    words = dict.fromkeys([*(w.value for w in Apphot), *(w.value for w in Proc)])
    if word not in words:
        raise Refused(f'"{word}" is no status word: {", ".join(words)}')
    planned = runs.with_word(observatory, word)
    n = len(planned.observations)
    if not n:
        console().print(f"No observation is {word}.")
        return
    if word in runs.SERVICES:
        service = observatory.vsp if word == Apphot.NOVSP else observatory.vsx
        if not service.probe():
            known = service.away()
            words_of_it = known.sentence() if known is not None else "it does not answer"
            console().print(f"{count(n, 'observation')} stay {word}: {words_of_it}", soft_wrap=True)
            return
    sys.exit(progress.carry_out(observatory, planned))
