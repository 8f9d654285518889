"""`python -m toto.train`, which is how torchrun starts toto-train."""

from toto.train.cli import main

if __name__ == "__main__":
    main()
