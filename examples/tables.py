"""A table from start to end, in some minutes: `python examples/tables.py`. Its rows are drawn by the bundled model."""

import polars as pl

import unveil

people = unveil.load("checkpoints/adult").sample(2000, seed=1)  # a DataFrame of yours: polars, pandas or pyarrow
model = unveil.fit(people, rules=["pair(education, education-num)"], time="2m")  # out="runs/people" keeps it
print(model.sample(5, where={"age": {"min": 30, "max": 40}, "income": [">50K"]}, seed=1))
holes = people.head(5).with_columns(pl.lit(None, pl.String).alias("occupation"))
print(model.impute(holes, seed=1).select("age", "education", "occupation"))
print(model.predict(people.head(5), "income"))  # the probability of each level
print(model.log_prob(people.head(5)))  # nats a row; small where a row is unusual
print(model.evaluate(target="income")["c2st"])  # 1: generated rows cannot be told from real ones
