"""The answer of a sweep in words, so that a null result is reported as one. Sentences on verdicts
are made here and nowhere else; console, PDF, MLflow and text files quote them."""
