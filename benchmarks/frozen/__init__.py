"""A trained denoiser that stays as it is, and the estimators that learn an order for it."""
