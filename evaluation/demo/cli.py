"""`voco_demo`: the whole story on phantoms, from raw volumes to a report. Heavy imports wait until help was given."""

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

OWN = frozenset({"ct", "done", "logs", "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "pretrained",
                 "predictions_VoCo", "predictions_scratch", "report.html"})  # fmt: skip
"""What a demo leaves in its folder."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(
        prog="voco_demo",
        description="Pre-train on phantom CTs, fine-tune nnU-Net on a few labelled ones from these weights and from "
        "scratch, evaluate both, and write OUT/report.html. Every command is printed as you would type it. About ten "
        "minutes on two CPU cores; the same command goes on after an interruption. Nothing is written outside OUT.",
        allow_abbrev=False,
    )
    parser.add_argument("out", nargs="?", default="voco_demo", type=Path, metavar="OUT", help="default: voco_demo")
    parser.add_argument(
        "--small", action="store_true", help="two minutes, to see that everything works; without meaning"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run `voco_demo`; errors that a user can mend are printed without a traceback."""
    args = build_parser().parse_args(argv)

    from nnunetv2_voco.evaluation.demo.commands import CommandFailed
    from nnunetv2_voco.evaluation.demo.settings import FULL, SMALL
    from nnunetv2_voco.evaluation.demo.story import Story

    story = Story(args.out.resolve(), SMALL if args.small else FULL)
    try:
        with _ending_as_by_ctrl_c():
            prepare_folder(story.out, "small" if args.small else "full")
            story.run(lambda line: print(line, flush=True))

            from nnunetv2_voco.evaluation.demo.outcome import read_outcome
            from nnunetv2_voco.evaluation.demo.report import verdict, write_report

            outcome = read_outcome(story)
            report = write_report(story, outcome)
            print(f"\n{verdict(outcome, story.settings)[0]}\nreport: {report}")
    except KeyboardInterrupt:
        sys.exit("\nvoco_demo: interrupted; the same command goes on")
    except (CommandFailed, OSError, ValueError) as error:
        sys.exit(f"voco_demo: {error}")


@contextmanager
def _ending_as_by_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the command at work, too; whoever called gets the former handlers back."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # not all on Windows
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def prepare_folder(out: Path, size: str) -> None:
    """Make the folder, or check that it holds a demo of the same size.

    Raises:
        ValueError: If it holds something else.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; name a new folder")
    inside = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    inside = {name for name in inside if not name.startswith(".report.html.")}  # killed while it was written
    if inside - OWN or (inside and "done" not in inside):
        raise ValueError(
            f"{out}: holds {', '.join(sorted(inside - OWN)[:3]) or 'no demo'}; nothing is overwritten, name a new "
            "folder"
        )
    mark = out / "done" / "size"
    if mark.exists() and mark.read_text(encoding="utf-8") != size:
        raise ValueError(f"{out}: holds a demo of another size; go on with or without --small as before, or remove it")
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(size, encoding="utf-8")
