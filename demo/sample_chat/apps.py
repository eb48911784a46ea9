from django.apps import AppConfig


class SampleChatConfig(AppConfig):
    name = "demo.sample_chat"
    label = "sample_chat"
