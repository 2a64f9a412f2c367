"""Losses as pure functions of tensors; nothing here knows a model, a data set or a Trainer."""
