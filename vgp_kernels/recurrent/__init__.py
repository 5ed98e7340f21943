"""Simple recurrent networks, LSTM and GRU."""
