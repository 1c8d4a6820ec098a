"""The first training step of a process: python -m tests.gpu.proving.first_step SIZES"""

import json
import sys

from tests.gpu.proving.our_steps import OurSteps


def main() -> None:
    """One step of the workload that is given as JSON, in TF32."""
    seconds = OurSteps(json.loads(sys.argv[1]), graph=True).first_step("tf32")
    print(f"finished, {seconds:.6f}", flush=True)


if __name__ == "__main__":
    main()
