"""What a loss is, as data: domains, parameters, inputs, the vocabulary of formulas, and their graphs."""
