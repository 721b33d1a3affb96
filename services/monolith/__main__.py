from services.chassis import serve

from .served import create_app
from .settings import Settings

serve(create_app, Settings)
