"""Results to tables and figures. The first word names the report; the others are its settings.

    python report.py demo run=out/demo                        # what training did: report.md and figures
    python report.py datacard data=out/demo/tokens            # what prepare.py did to a corpus: card.md, funnel.png
    python report.py claims runs='["out/a", "out/b"]'         # do the claims hold over several seeds? claims.md
    python report.py ablation baseline=off variant=on runs='["out/a", "out/b"]'    # what one change does
    python report.py ladder run=out/ladder                    # at which size of the base abilities appear: ladder.md
    python report.py paper run=out/marco                      # our scores under the published ones: paper.md
    python report.py curve runs='["out/marco/stage1"]'        # benchmarks by tokens seen: steps.md and figures
    python report.py systems                                  # the nine systems on the shipped base: their effects
    python report.py tables run=out/mine                      # every score as measured: report.md

`python report.py NAME --help` prints the settings of a report, which are declared in reports/NAME.py.
"""
import signal
import sys
from typing import Any

from configs import errors, load
from reports import ablation, claims, curve, datacard, demo, ladder, paper, systems, tables

REPORTS: dict[str, tuple[type, Any]] = {  # name: (its settings, its program)
    "demo": (demo.Demo, demo.write_report),
    "datacard": (datacard.DataCard, datacard.write_card),
    "claims": (claims.Claims, claims.write_claims),
    "ablation": (ablation.Ablation, ablation.print_ablation),
    "ladder": (ladder.Ladder, ladder.write_ladder),
    "paper": (paper.Paper, paper.write_paper_tables),
    "curve": (curve.Curve, curve.write_curve),
    "systems": (systems.Systems, systems.write_systems),
    "tables": (tables.Tables, tables.write_tables),
}


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    name, words = argv[0] if argv else None, argv[1:]
    if name in ("-h", "--help", "help"):
        print(__doc__)
        return
    if name not in REPORTS:
        got = "no word" if name is None else repr(name)
        raise ValueError(f"the first word must name a report, got {got}; the reports are: {', '.join(REPORTS)}")
    schema, write = REPORTS[name]
    settings, = load(schema, argv=words)
    write(settings)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `report.py ... | head` ends quietly
    try:
        main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))
