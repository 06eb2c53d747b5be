"""The only room that knows ComfyUI: its folders, its models, its progress, its server."""
