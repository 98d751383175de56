"""Make the sample that ships with fastloss: held-out predictions on two real data sets that scikit-learn carries.

Every row is predicted by a model that never saw it (10-fold cross-validation):

- breast_cancer.parquet: Wisconsin diagnostic breast cancer, 569 patients; columns logit, probability, label (0 or 1:
  benign), sign (-1 or +1).
- digits.parquet: 1797 handwritten digits of 8 x 8 pixels; columns logits (a list of 10), label.

    python bench/make_sample.py [DIRECTORY]
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def held_out(data, strength: float):
    """Decision values of a regularised logistic regression for rows it was not fitted on."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))
    folds = StratifiedKFold(10, shuffle=True, random_state=0)
    scores = cross_val_predict(model, data.data, data.target, cv=folds, method="decision_function")
    return scores.astype(np.float32)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "fastloss" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    cancer = load_breast_cancer()
    logit = held_out(cancer, 1.0)
    label = cancer.target.astype(np.int8)
    probability = 1.0 / (1.0 + np.exp(-logit.astype(np.float64)))
    table = pa.table({"logit": logit, "probability": probability, "label": label, "sign": 2 * label - 1})
    pq.write_table(table, folder / "breast_cancer.parquet", compression="zstd")
    digits = load_digits()
    scores = held_out(digits, 0.1)
    logits = pa.FixedSizeListArray.from_arrays(pa.array(scores.reshape(-1)), scores.shape[1])
    table = pa.table({"logits": logits, "label": digits.target.astype(np.int8)})
    pq.write_table(table, folder / "digits.parquet", compression="zstd")
    for path in sorted(folder.glob("*.parquet")):
        print(f"{path}: {pq.read_metadata(path).num_rows} rows, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
