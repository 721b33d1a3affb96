"""feedback: what people think of the answers and what the services report; reports over both."""
