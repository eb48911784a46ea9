import os

from django.core.wsgi import get_wsgi_application

os.environ["DJANGO_SETTINGS_MODULE"] = "demo.sample_chat.settings"
application = get_wsgi_application()
