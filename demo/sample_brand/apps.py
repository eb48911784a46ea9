from django.apps import AppConfig


class SampleBrandConfig(AppConfig):
    name = "demo.sample_brand"
    label = "sample_brand"
