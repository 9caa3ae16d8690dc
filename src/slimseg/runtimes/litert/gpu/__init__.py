"""LiteRT's GPU delegate, on any Vulkan driver of this machine: which layers it takes, and what it computes.

driver.py      the Vulkan drivers of this machine, and the environment variables that select one
delegate.py    asks the delegate, in a child process
job.py         what runs in that process
messages.py    reads what the delegate prints
single.py      cuts one operator out of a file, to ask about it alone
parts.py       which part of a network the delegate runs, and what is copied
static.py      the verdict without a driver, from a list
processor.py   the processor "gpu"
"""
