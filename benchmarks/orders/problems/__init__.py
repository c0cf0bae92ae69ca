"""Made-up and enumerable problems with known orders."""
