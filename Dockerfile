# The CPU set in a container: docker build -t deepfill . && docker run -v "$PWD:/data" deepfill test.py --image ...
# Not built or tested here. For a GPU start from an image of Paddle's own and install requirements-base.txt.
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 libgomp1 \
 && rm -rf /var/lib/apt/lists/*
COPY . /deepfill
RUN pip install --no-cache-dir -r /deepfill/requirements-cpu.txt
WORKDIR /deepfill
ENTRYPOINT ["python"]
CMD ["test.py", "--help"]
