"""Turns downloaded weights into the forms that the services load: Hugging Face folders and ONNX."""
