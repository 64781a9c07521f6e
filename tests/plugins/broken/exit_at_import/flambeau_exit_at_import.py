import sys

print("usage: this is not a library")
sys.exit(3)
