"""Mutated files of every format that slimseg opens, tried in processes of their own.

seeds.py        small files that are what they should be, one folder for each format
values.py       extremes to put in the place of numbers, texts and names
plain.py        mutations of bytes: bits, spans, lengths, offsets
documents.py    mutations of JSON, and of the entries of zip archives
models.py       mutations of networks as such: tensors, operators, shapes, weights of `.tflite` and `.onnx`
formats.py      each format: its seeds, its mutators, what opens it
trials.py       one mutant opened and run once: what became of it
commands.py     the same through the command line
worker.py       a process that tries one mutant after another
herd.py         workers under a watchdog, restarted when one dies
hostile.py      files that somebody with bad intentions would make
audit.py        what Python imports, opens and starts while such files are loaded
"""
