"""The model store: manifests, blobs and locks on disk, and the models that they make up."""
