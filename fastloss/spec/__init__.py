"""Record of a loss as data: domains, parameters, inputs, the vocabulary of formulas, and their graphs."""
