"""`python -m toto.train`, which is how torchrun starts toto-train."""

from toto.console import train

if __name__ == "__main__":
    train()
