"""DeepSeek-VL beside transformers, in one run: SAM's encoder, choice questions, decoding, loading.

Full published sizes, random weights, two cores; each part stands as a benchmark of its own, with what it measures and
how.

    python -m benchmarks.deepseek_vl [--quick] [--json]
"""

import argparse
import json
import sys
from dataclasses import asdict

import torch

from benchmarks import choice, decode, loading, sam_encoder
from benchmarks.cores import CORES, keep_to_cores

PARTS = {"SAM's encoder": sam_encoder, "choice questions": choice, "decoding": decode, "loading": loading}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deepseek_vl", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    keep_to_cores()
    torch.set_num_threads(CORES)
    reports = {}
    for title, part in PARTS.items():
        print(f"{title} ...", file=sys.stderr, flush=True)
        reports[title] = part.measure(is_quick=options.quick)
        if not options.json:
            print(f"== {title}\n{part.as_table(reports[title])}\n", flush=True)
    if options.json:
        print(json.dumps({title: asdict(report) for title, report in reports.items()}, indent=1))
    return 0 if options.quick or all(report.is_within_limits for report in reports.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
