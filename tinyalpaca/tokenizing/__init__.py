"""The parts of tokenizers: base class, splitting, learning merges, applying them, files."""
