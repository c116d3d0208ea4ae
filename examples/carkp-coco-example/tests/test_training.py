"""Five points train, quantize and compile through the config that is made for seventeen."""

import json
import os
import subprocess
import sys


def test_from_annotations_to_a_program(coco_root, tmp_path):
    changes = (f"coco_root={coco_root}", "category=figure", "num_keypoints=5", "num_epochs=1", "batch_size=8")
    options = [part for change in changes for part in ("--opts", change)]
    config = ("--config", "coco_keypoints", *options)

    def carkp(*args):
        command = [sys.executable, "-m", "carkp_core", *args, *config]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, f"{' '.join(args)}\n{result.stdout}\n{result.stderr}"

    for stage in ("float", "calibration", "int_infer"):
        carkp("train", "--stage", stage)
    carkp("compile-perf", "--json", "perf.json")
    assert json.loads((tmp_path / "perf.json").read_text())["ok"]
    carkp("predict", "--stage", "int_infer", "--json", "metrics.json")
    assert "PCK" in (tmp_path / "metrics.json").read_text()
