from django.urls import path

from demo.sample_chat import views

urlpatterns = [
    path("", views.start, name="start"),
    path("chat/<str:key>", views.chat, name="chat"),
    path("chat/<str:key>/news", views.news, name="news"),
    path("chat.css", views.stylesheet, name="stylesheet"),
    path("chat.js", views.script, name="script"),
]
