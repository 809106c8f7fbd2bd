FROM python:3.12-alpine AS build
CMD ["make"]

FROM python:3.12-alpine
WORKDIR /code
ENV FLASK_APP=app.py \
    FLASK_RUN_HOST=0.0.0.0
# a comment
EXPOSE 5000
CMD ["flask", "run", \
     "--port=5000"]
