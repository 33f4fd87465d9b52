"""`python -m bus`: a fabric node as a process (bus/process.py)."""

from proto import program

if __name__ == "__main__":
    program.run("bus.process")
