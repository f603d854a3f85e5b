"""Whole datasets by key: what `DatasetCache` is made of.

    cache_dir/
      my_dataset-9f0c…/            one folder for each key
        easydata-entry.json        the commit: which generation counts, its key and metadata
        generation-1b7e…/          a dataset directory, or one for each split
        damaged-77d0…/             a generation whose bytes changed, kept for inspection

Nothing is imported here.
"""
