"""One decided order, searched for by what a critic expects orders to cost."""
