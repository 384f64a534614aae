"""The paper's two augmentations: pairs of strictness and changed configurations."""
