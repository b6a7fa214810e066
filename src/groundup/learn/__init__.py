"""The learning path: exercises that check themselves, pictures, and the builder of the notebooks."""
