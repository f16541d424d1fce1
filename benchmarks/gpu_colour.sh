#!/usr/bin/env bash
# Colour pictures on one CUDA device, in less than 12 minutes: trains DATA at 64x64 for 4 minutes and at 128x128 for 3,
# draws their samples and logs, measures a step at 64 to 512, and runs the tests that need a GPU.
#
#     bash benchmarks/gpu_colour.sh DATA OUT        OUT is a new folder; PYTHON names another interpreter
set -eu
data=$1 out=$2 python=${PYTHON:-python}
mkdir "$out"
for case in "64 4m" "128 3m"; do
    read -r size time <<< "$case"
    run=$out/$size
    "$python" -m ptarmigan train "$data" --size "$size" --time "$time" --out "$run" 2>&1 | tee "$run.log"
    "$python" -m ptarmigan sample "$run" -n 8 --out "$run.png"
    "$python" -m ptarmigan plot "$run" --out "$run.svg"
done
"$python" benchmarks/gpu.py --seconds 1 --colour | tee "$out/steps.txt"
"$python" -m pytest tests/test_cuda.py | tee "$out/tests.txt"
