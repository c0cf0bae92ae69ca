"""Problems whose best order is known: made here, in any number, from a seed. They know no network and no training."""
