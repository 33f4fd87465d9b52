"""`python -m engine`: an engine as a process (engine/process.py)."""

from proto import program

if __name__ == "__main__":
    program.run("engine.process")
