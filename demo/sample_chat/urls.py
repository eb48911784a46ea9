from django.urls import path

from demo.sample_chat import views

urlpatterns = [
    path("", views.start, name="start"),
    path("chat/<str:key>", views.chat, name="chat"),
    path("chat/<str:key>/news", views.news, name="news"),
    path("chat/<str:key>/handle", views.handle, name="handle"),
    path("back", views.back, name="back"),
    path("chat.css", views.stylesheet, name="stylesheet"),
    path("chat.js", views.script, {"name": "chat"}, name="script"),
    path("back.js", views.script, {"name": "back"}, name="script_of_back"),
]
