"""One module for each loader that benchmarks/loader.py compares.

Each runs in a process of its own, some in another virtual environment, so it imports nothing of
easydata or of another module's packages. It has

    PACKAGES                 the distributions whose versions belong to its figures
    load(name)               imports all that a variant needs, so that it is in no time
    write(file, folder, …)   stores the tokens of a .npy file in its own format
    VARIANTS                 its ways to read them, by the name that the tables show

`measure.py` calls them.
"""
