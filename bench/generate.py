"""The generated series of `experiments.generate`, under the name that tests, demo and measurements know it by.

python -m bench.generate OUT [--images 360] [--rows 640] [--columns 640] [--seed 1]
"""

from experiments.generate import ct_series, main, uid, write_multiframe, write_series

__all__ = ["ct_series", "uid", "write_multiframe", "write_series"]

if __name__ == "__main__":
    main()
