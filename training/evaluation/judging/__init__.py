"""A table's model before judges: classifiers, shapes, usefulness, copies, and an attack by likelihood."""
