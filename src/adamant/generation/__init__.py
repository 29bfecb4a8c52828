"""Generation: adversarial games that make pictures, codes and perturbations."""
