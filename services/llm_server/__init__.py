"""llm_server: llama.cpp's own HTTP server (through xllamacpp) as a process of this system."""
